"""A table of a recipe: checked when it is read, frozen, and unknown keys are errors."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a recipe: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
