"""Sample models: a trained digits network with its held-out images, and generators of well-known networks.

python -m sample_models resnet50 -o DIR        a network with seeded random weights, as an exporter writes it
python -m sample_models.train_digits           train digits.onnx anew (needs the extra ``train``)
python -m sample_models.demo                   build digits.onnx into a plan, run it, check its accuracy
"""
