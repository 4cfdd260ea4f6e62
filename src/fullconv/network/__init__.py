"""The network: a backbone whose cells sit at known places, scores on them, and their readings."""
