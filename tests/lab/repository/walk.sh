#!/bin/sh
# usage: walk.sh TIE SEED OUT
exec awk -v tie="$1" -v seed="$2" -f walk.awk > "$3"
