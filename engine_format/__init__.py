"""What a plan file is. Imports nothing of miniinfer_cli, and opens plans on any machine."""
