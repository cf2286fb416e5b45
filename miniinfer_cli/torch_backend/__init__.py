"""``torch.compile(model, backend="miniinfer")``: graphs that PyTorch captures, computed by plans.

The entry point group ``torch_dynamo_backends`` names ``compile_graph`` of ``backend.py``; nothing here is imported before PyTorch
asks for it. docs/torch.md says what is taken.
"""
