"""Ray Data and Ray Serve on a local Ray: ``make ray-test``. No part of ``make test``, whose environment has no Ray."""
