"""What a user of the converter can get wrong."""


class ConversionError(ValueError):
    """A model that cannot be converted. The message is one line that names the layer or file, and the mend."""
