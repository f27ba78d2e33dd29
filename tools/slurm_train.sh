#!/bin/sh
exec wholebody slurm train "$@"  # JOB_NAME NUM_GPU CONFIG_FILE
