#!/bin/sh
exec wholebody slurm test "$@"  # JOB_NAME NUM_GPU TRAIN_OUTPUT_DIR CKPT_ID
