"""An extension of griffe: it knows ``Example:``, and the ``Args:`` of a NamedTuple, by other names."""

import re

import griffe


class DocstringSections(griffe.Extension):
    """Give sections the names under which griffe recognises them."""

    def on_object(self, *, obj, **kwargs):
        """Rename the sections of one object's docstring."""
        if obj.docstring is None:
            return
        text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
        if obj.is_class and any("NamedTuple" in str(base) for base in obj.bases):
            text = re.sub(r"^( *)Args:$", r"\1Attributes:", text, flags=re.MULTILINE)
        obj.docstring.value = text
