"""What holds for every test: drawn examples have no time limit each, since the machine may be busy with other work."""

from hypothesis import settings

settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
