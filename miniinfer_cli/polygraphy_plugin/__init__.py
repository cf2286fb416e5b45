"""``polygraphy run model.onnx --miniinfer``: a runner for NVIDIA's Polygraphy, and its flags.

The entry point group ``polygraphy.run.plugins`` names ``argument_groups`` of ``arguments.py``; nothing here is imported before
Polygraphy asks for it.
"""
