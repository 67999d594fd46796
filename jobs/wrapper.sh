#!/bin/sh
# Runs the formula once, within its time, and reports how it went.
#
# All it prints is what the formula prints. Exit codes of its own: 121 the formula was started
# before, 122 it could not be started, 123 the base job does not take it, 124 it took too long.
# Variables begin with consign_, so that none of the formula's environment is overwritten.

exec 3>&1 </dev/null >/dev/null 2>&1

# Docker passes what is printed to a program that copies it to Nomad's log, and Nomad ends that one
# with the task, however much is left to copy. So the formula writes into the log's pipe itself. It is
# opened for reading too: then a log that nobody reads for a while delays the formula and ends nothing.
# It is opened once only, since its reader leaves when nobody holds it open. Where the image's user may
# not write into it, the end waits for the copy.
consign_copied=
case $(readlink /proc/self/fd/3) in
  pipe:*)
    consign_value=$NOMAD_ALLOC_DIR/logs/.$NOMAD_TASK_NAME.stdout.fifo
    if ! [ -p "$consign_value" ] || ! command exec 3<>"$consign_value"; then
      [ -d "$NOMAD_ALLOC_DIR/logs" ] && consign_copied=yes
    fi
    ;;
esac

consign_folder=$NOMAD_ALLOC_DIR/consign
mkdir -p "$consign_folder"
if ! mkdir "$consign_folder/started"; then
  [ -d "$consign_folder/started" ] && exit 121
  exit 122
fi
cd "$NOMAD_ALLOC_DIR/data" || exit 122

# Many programs need a home folder to write to. Only trying tells: for root busybox says yes untried.
if [ "$HOME" ] && ! { mkdir "$HOME/.consign.$$" && rmdir "$HOME/.consign.$$"; }; then
  export HOME="$NOMAD_TASK_DIR/home"
  mkdir -p "$HOME"
fi

consign_kind=program consign_timeout=3600 consign_from=1
if [ -r "$NOMAD_TASK_DIR/consign/plan" ]; then
  while read -r consign_key consign_value; do
    case $consign_key in
      kind) consign_kind=$consign_value ;;
      timeout) consign_timeout=$consign_value ;;
      from_step) consign_from=$consign_value ;;
    esac
  done <"$NOMAD_TASK_DIR/consign/plan"
fi
case $consign_timeout in
  '' | *[!0-9]* | 0* | ??????????*) consign_timeout=3600 ;;
esac
case $consign_from in
  '' | *[!0-9]* | 0* | ??????????*) consign_from=1 ;;
esac

# A session of its own lets the formula and all its children be signalled together.
consign_session=
command -v setsid && consign_session=setsid

# A shell starts what runs in the background with SIGINT and SIGQUIT ignored, and only a program
# can undo that. Where env cannot, they stay ignored.
consign_signals=
env --default-signal=INT,QUIT true && consign_signals='env --default-signal=INT,QUIT'

# Sends signal $1 to the process $2 and all its group.
consign_signal() {
  kill -s "$1" -- "-$2" || kill -s "$1" "$2"
}

# Hundredths of a second since some time, in consign_now; no change of the clock moves it.
consign_read_clock() {
  if read -r consign_now consign_value </proc/uptime; then
    consign_value=${consign_now#*.}
    consign_now=$((${consign_now%.*} * 100 + 1$consign_value - 100))
  else
    consign_now=$(($(date +%s) * 100))
  fi
}

# Arranges in consign_watch that process $1 is ended after $2 seconds: TERM, and 5 s later KILL; after 0
# seconds KILL alone.
# The file $3 is made first, where one is named.
consign_watch() {
  $consign_session sh -c '
    end() { kill -s "$1" -- "-$2" || kill -s "$1" "$2"; }
    if [ "$4" ]; then
      sleep "$2"
    else
      # Without a session this process alone can be ended, so what it waits for must be short.
      left=$2
      while [ "$left" -gt 0 ] && kill -0 "$5"; do sleep 1; left=$((left - 1)); done
    fi
    [ "$3" ] && true >"$3"
    # After no time at all it was signalled already, and a second TERM would run its trap a second time.
    [ "$2" -gt 0 ] && end TERM "$1"
    left=5
    while [ "$left" -gt 0 ] && end 0 "$1"; do sleep 1; left=$((left - 1)); done
    end KILL "$1"
  ' consign "$1" "$2" "$3" "$consign_session" "$$" 3>&- &
  consign_watch=$!
}

# Ends the watch $1 and what it waits for.
consign_unwatch() {
  consign_signal KILL "$1"
  wait "$1"
  [ "$consign_session" ] && kill -s KILL -- "-$1"
}

# Nomad wants the task to end: it is passed on, with an end to the patience before Nomad's own.
consign_child='' consign_stopped='' consign_interrupted='' consign_ending=''
consign_stop() {
  [ "$consign_ending" ] && return
  consign_ending=yes
  consign_signal "$consign_stopped" "$consign_child"
  consign_kept=$consign_watch
  consign_watch "$consign_child" 0 ''
  consign_grace=$consign_watch consign_watch=$consign_kept
}
trap 'consign_stopped=TERM consign_interrupted=yes; [ "$consign_child" ] && consign_stop' TERM
trap 'consign_stopped=INT consign_interrupted=yes; [ "$consign_child" ] && consign_stop' INT

# Runs the script $1 for at most $2 seconds, 0 for as long as the job has. Its exit code comes in
# consign_code; how it ended (exit, timeout, step_timeout, stopped) in consign_ended.
consign_run() {
  consign_read_clock
  consign_limit=$(((consign_deadline - consign_now + 99) / 100)) consign_late=timeout
  if [ "$2" -gt 0 ] && [ "$2" -lt "$consign_limit" ]; then
    consign_limit=$2 consign_late=step_timeout
  fi
  consign_ended=exit
  if [ "$consign_stopped" ]; then
    consign_ended=stopped consign_code=143
    return
  elif [ "$consign_limit" -le 0 ]; then
    consign_ended=timeout consign_code=124
    return
  fi

  consign_value=
  IFS= read -r consign_value <"$1"
  case $consign_value in
    '#!'*) set -- "$1" ;;
    *) set -- sh "$1" ;;
  esac
  rm -f "$consign_folder/late"
  $consign_session $consign_signals "$@" </dev/null >&3 2>&3 3>&- &
  consign_value=$!
  consign_watch "$consign_value" "$consign_limit" "$consign_folder/late"
  # Known to the traps from here on: one that ran amid the lines above would mistake one watch for another.
  consign_child=$consign_value
  [ "$consign_stopped" ] && consign_stop

  wait "$consign_child"
  consign_code=$?
  # A trapped signal ends the wait early; 127 says that the first wait had the real answer.
  while [ "$consign_interrupted" ]; do
    consign_interrupted=
    wait "$consign_child"
    consign_value=$?
    [ "$consign_value" -eq 127 ] || consign_code=$consign_value
  done

  if [ -e "$consign_folder/late" ]; then
    # What is left of the group has its 5 s too.
    wait "$consign_watch"
    consign_ended=$consign_late consign_code=124
  elif [ "$consign_stopped" ]; then
    consign_ended=stopped
    [ "$consign_ending" ] && wait "$consign_grace"
  fi
  consign_unwatch "$consign_watch"
  # What it left in the background ends with it.
  [ "$consign_session" ] && kill -s KILL -- "-$consign_child"
  consign_child=
}

# Puts the report in place; a reader sees all of it or the one before.
consign_report=
consign_save() {
  printf '%s' "$consign_report" >"$consign_folder/report.new" &&
    mv -f "$consign_folder/report.new" "$consign_folder/report"
}

# Lets the copy come to its end: a log that did not grow for 2 s is taken for all. It takes a minute at most.
consign_await_copy() {
  consign_tries=60 consign_same=0 consign_size=
  while [ "$consign_tries" -gt 0 ] && [ "$consign_same" -lt 2 ]; do
    sleep 1
    consign_value=$(ls -l "$NOMAD_ALLOC_DIR/logs")
    if [ "$consign_value" = "$consign_size" ]; then
      consign_same=$((consign_same + 1))
    else
      consign_size=$consign_value consign_same=0
    fi
    consign_tries=$((consign_tries - 1))
  done
}

consign_newline='
'
# Adds the last lines to the report, CPU time and how it ended ($1), and ends with exit code $2.
consign_finish() {
  # The second line is of the children: the formula, and what it waited for.
  if times >"$consign_folder/times" && { read -r consign_value && read -r consign_value; } <"$consign_folder/times"; then
    consign_report=$consign_report"cpu $consign_value"$consign_newline
  fi
  consign_report=$consign_report"ended $1"$consign_newline
  consign_save
  [ "$consign_copied" ] && consign_await_copy
  exit "$2"
}

# One step, its script on standard input: name (escaped), seconds per try or 0, retries, and
# whether the next step runs although this one failed (yes or no). Those before the plan's from_step
# ran in an earlier attempt.
consign_index=0
consign_step() {
  consign_index=$((consign_index + 1)) consign_tries=$3
  [ "$consign_index" -ge "$consign_from" ] || return
  consign_script=$consign_folder/step-$consign_index
  cat >"$consign_script" && chmod 755 "$consign_script" || consign_finish 'exit 122' 122
  consign_read_clock
  consign_began=$consign_now
  while consign_run "$consign_script" "$2"; do
    case $consign_ended-$consign_code in
      exit-0 | timeout-* | stopped-*) break ;;
    esac
    [ "$consign_tries" -gt 0 ] || break
    consign_tries=$((consign_tries - 1))
  done
  consign_read_clock
  consign_value=$(((consign_now - consign_began) * 10))
  consign_report=$consign_report"step $consign_index $1 $consign_code $consign_value"$consign_newline
  case $consign_ended in
    timeout | stopped) consign_finish "$consign_ended" "$consign_code" ;;
    step_timeout) [ "$4" = yes ] || consign_finish "step_timeout $1" 124 ;;
    *) [ "$consign_code" -eq 0 ] || [ "$4" = yes ] || consign_finish "exit $consign_code" "$consign_code" ;;
  esac
  consign_save
}

consign_read_clock
consign_deadline=$((consign_now + consign_timeout * 100))
# Some base jobs take certain formulas alone.
consign_formulas=
[ -r "$NOMAD_TASK_DIR/consign/formulas" ] && read -r consign_formulas <"$NOMAD_TASK_DIR/consign/formulas"
if [ "$consign_formulas" ]; then
  consign_value=
  for consign_key in $consign_formulas; do
    [ "$consign_key" = "$CONSIGN_FORMULA" ] && consign_value=yes
  done
  [ "$consign_value" ] || consign_finish "refused $consign_formulas" 123
fi

consign_formula=$NOMAD_TASK_DIR/formula
[ -r "$consign_formula" ] || consign_finish 'exit 122' 122

if [ "$consign_kind" = steps ]; then
  . "$consign_formula"
  consign_finish 'exit 0' 0
fi

if ! [ -x "$consign_formula" ]; then
  cp "$consign_formula" "$consign_folder/formula" && chmod 755 "$consign_folder/formula" ||
    consign_finish 'exit 122' 122
  consign_formula=$consign_folder/formula
fi
consign_run "$consign_formula" 0
case $consign_ended in
  exit) consign_finish "exit $consign_code" "$consign_code" ;;
  *) consign_finish "$consign_ended" "$consign_code" ;;
esac
