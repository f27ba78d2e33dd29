#!/bin/sh
exec wholebody slurm inference "$@"  # VIDEO FORMAT FPS CKPT
