# For the other scripts, to be sourced: runs named steps, stops at the first that fails, tells what each took.
# shellcheck shell=bash

steps_taken=()

# step NAME COMMAND...: a heading, the command, its time. A failing step ends the script with the command's own code.
step() {
    local name=$1 start=$SECONDS code=0
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    # In a subshell of its own so that `set -e` still holds inside a function that is run as a step.
    set +e
    (set -e; "$@")
    code=$?
    set -e
    if [ $code -ne 0 ]; then
        printf '\n== %s FAILED (code %d) after %d s: %s\n' "$name" "$code" $((SECONDS - start)) "$*" >&2
        exit $code
    fi
    steps_taken+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}

# The last thing a script prints: where the time went.
summary() {
    printf '\n%s passed, %d s:\n' "$(basename "$0")" "$SECONDS"
    printf '%s\n' "${steps_taken[@]}"
}
