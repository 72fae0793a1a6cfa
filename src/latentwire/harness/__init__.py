"""Wires in lm-evaluation-harness: importing this room registers the model ``latentwire`` with it.

The harness finds outside models by import alone, so something has to import this room before the model is asked for:
``latentwire harness`` does, ``lm_eval --tasks FILE`` does where the file names a function of this room, and a program
does so by hand.
"""

from latentwire.errors import UserError

try:
    import lm_eval  # noqa: F401
except ImportError:
    raise UserError("lm-evaluation-harness is not installed; pip install 'latentwire[harness]'") from None

from latentwire.harness.model import LatentWire

__all__ = ["LatentWire"]
