"""Training of the method's parts on diffusers' UNet or Flux: anchoring (SAA, face encoder), reconfiguration (IMR)."""
