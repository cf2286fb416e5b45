"""Structure-aware fuzzing of what stands behind the door: models, plans with sound digests, command lines, input files.

    python -m tests.fuzz.semantic --kind models plans --count 100000 --report FILE      what came out, as JSON and in short
    python -m tests.fuzz.semantic --kind models --seed 4711 --keep FOLDER              one case again, and its files

Every case follows from its kind and its seed alone, and runs the command line in a forked process, in a folder of its own that
is removed. What is promised of each: exit 0 to 6, a hint with every error, no crash, bounds of time and memory, and where a
model is accepted, ONNX Runtime's answer (``oracle``).
"""
