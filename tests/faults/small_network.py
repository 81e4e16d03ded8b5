"""An encoder with signals that trains in moments, as settings on a command line."""

OVERRIDES = (
    "encoder.signal={stem_filters: 4, stage_filters: [4], blocks_per_stage: 1, kernel_size: 5, units: 4}",
    "encoder.structured_units=[4]",
    "encoder.statics_units=[4]",
    "encoder.recurrent_layers=1",
    "encoder.recurrent_units=8",
)
