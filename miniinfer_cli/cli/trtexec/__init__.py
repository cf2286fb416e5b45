"""``miniinfer trtexec``: the command line of NVIDIA's trtexec over what build, run and profile do; nothing else knows of it."""
