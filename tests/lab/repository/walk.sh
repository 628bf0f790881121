#!/bin/sh
# usage: walk.sh TIE SEED OUT STEPS
exec awk -v tie="$1" -v seed="$2" -v steps="$4" -f walk.awk > "$3"
