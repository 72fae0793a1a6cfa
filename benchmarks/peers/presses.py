"""Presses of kvpress that are tried: a name of ours, the class, and its settings (a press within a press likewise).

Left out are those that need weights or statistics trained for one model (KVzap, FastKVzip, RestoreKV, QFilter,
DuoAttention, LU-KV, ExpectedAttentionStats), that see the question (Finch), that set no number of positions
(SimLayerKV, DMS), that work while decoding, or that shrink channels (ThinK). Settings are the package's own, or those
it recommends; but those that look at the last 64 tokens look at 8, for at 16x fewer than 64 may stay.
"""

EXPECTED = ("ExpectedAttentionPress", {"epsilon": 1e-2})
SNAP_8 = ("SnapKVPress", {"window_size": 8})
PRESSES = {
    "KVzip": ("KVzipPress", {}),
    "KVzip+": ("KVzipPress", {"kvzip_plus_normalization": True}),
    "KVzip by layer": ("KVzipPress", {"layerwise": True}),
    "KVgrad": ("KVgradPress", {}),
    "ExpectedAttention": EXPECTED,
    "AdaKV ExpectedAttention": ("AdaKVPress", {"press": EXPECTED}),
    "Merging ExpectedAttention": ("MergingPress", {"press": EXPECTED}),
    "SnapKV": ("SnapKVPress", {}),
    "SnapKV 8": SNAP_8,
    "AdaKV SnapKV 8": ("AdaKVPress", {"press": SNAP_8}),
    "CriticalKV SnapKV 8": ("CriticalKVPress", {"press": SNAP_8}),
    "ChunkKV SnapKV 8": ("ChunkKVPress", {"press": SNAP_8, "chunk_length": 10}),
    "EntropyGatedChunkKV SnapKV 8": ("EntropyGatedChunkKVPress", {"press": SNAP_8}),
    "PyramidKV 8": ("PyramidKVPress", {"window_size": 8}),
    "TOVA": ("TOVAPress", {}),
    "ObservedAttention": ("ObservedAttentionPress", {}),
    "StreamingLLM": ("StreamingLLMPress", {}),
    "Knorm": ("KnormPress", {}),
    "KeyDiff": ("KeyDiffPress", {}),
    "LagKV 16": ("LagKVPress", {"lag_size": 16}),
    "CUR": ("CURPress", {}),
    "LeverageScore": ("LeverageScorePress", {}),
    "NonCausalAttn": ("NonCausalAttnPress", {}),
    "Compactor": ("CompactorPress", {}),
    "CAP": ("CapPress", {}),
    "Random": ("RandomPress", {"seed": 0}),
}
