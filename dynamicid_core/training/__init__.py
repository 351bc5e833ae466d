"""Training of the method's parts on diffusers' UNet: anchoring (SAA, face encoder), reconfiguration (IMR)."""
