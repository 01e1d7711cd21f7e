"""Where a sweep's runs are carried out: in this process, in processes of this machine, on a Ray cluster, or by a Slurm
array.
"""
