"""What can go wrong, each with one sentence that names the input and the remedy."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message names it and says what to do."""


class AdapterError(RuntimeError):
    """An encoder's description does not reproduce the model it describes, so its numbers would be wrong."""


class ConvergenceWarning(UserWarning):
    """The path integral missed its tolerance within the allowed nodes; the reached residual is in the message."""


class AssumptionWarning(UserWarning):
    """The model does not say something that is needed, and a usual value was taken."""
