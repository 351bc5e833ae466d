"""`python -m dynamicid_core.data`, see `command`."""

from .command import main

raise SystemExit(main())
