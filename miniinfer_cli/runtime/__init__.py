"""What callers hold: engines and contexts. It knows what every backend is asked, and no backend."""
