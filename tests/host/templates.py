"""The pack's templates."""

from dynamicid_pack.tests.support import ROOT

TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
MINIATURE = [template for template in TEMPLATES if template.stem.startswith("mini_")]
FULL_SIZE = [template for template in TEMPLATES if template not in MINIATURE]
