"""Weights of PyTorch modules: drawn at random, and as arrays."""


def randomize(torch, module):
    """Makes weights and running statistics random, with outputs of moderate size."""
    generator = torch.Generator().manual_seed(1)
    for key, tensor in module.state_dict().items():
        noise = torch.rand(tensor.shape, generator=generator)
        if key.endswith("running_var") or (tensor.ndim == 1 and key.endswith("weight")):
            tensor.copy_(0.5 + noise)
        elif tensor.ndim > 1:
            tensor.copy_((noise - 0.5) * (12 / tensor[0].numel()) ** 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(noise - 0.5)
    return module


def arrays(module):
    return {key: tensor.numpy().copy() for key, tensor in module.state_dict().items()}
