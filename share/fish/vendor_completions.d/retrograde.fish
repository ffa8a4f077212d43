# Completion of retrograde for fish.
_RETROGRADE_COMPLETE=fish_source retrograde 2>/dev/null | source
