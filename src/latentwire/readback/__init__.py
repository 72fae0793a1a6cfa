"""What a packet says, made visible: the text that a receiver reads back, and the words nearest to each latent."""

from latentwire.readback.overlap import Overlap, overlap
from latentwire.readback.retell import Retold, retell
from latentwire.readback.windows import recite
from latentwire.readback.words import LatentWords, nearest_words

__all__ = ["LatentWords", "Overlap", "Retold", "nearest_words", "overlap", "recite", "retell"]
