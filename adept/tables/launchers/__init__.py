"""Where a sweep's runs are carried out.

In this process (in_process.py), in processes of this machine (local.py), on a Ray cluster (ray_cluster.py), or as an
array of jobs that Slurm schedules (slurm.py). launcher.py says what a launcher does.
"""
