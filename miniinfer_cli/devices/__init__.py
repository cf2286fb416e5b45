"""The devices of this machine, and plans opened on them: it brings the runtime and the backends together."""
