"""The error for an image that cannot be used."""


class UnreadableImage(Exception):  # noqa: N818  (the name describes the image)
    """The bytes are not a usable image; the text is the reason."""
