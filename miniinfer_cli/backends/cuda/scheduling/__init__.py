"""When steps run and where their values live: memory, launches that begin early, a program bound to addresses."""
