#!/bin/sh
# Runs the formula once, within its time, and reports how it went.
#
# All it prints is what the formula prints, with the values of its secrets masked. Exit codes of its own:
# 121 the formula was started before, 122 it could not be started, 123 the base job does not take it, 124 it
# took too long.
# Variables begin with consign_, so that none of the formula's environment is overwritten.

exec 3>&1 </dev/null >/dev/null 2>&1

# Docker passes what is printed to a program that copies it to Nomad's log, and Nomad ends that one
# with the task, however much is left to copy. So the formula writes into the log's pipe itself. It is
# opened for reading too: then a log that nobody reads for a while delays the formula and ends nothing.
# It is opened once only, since its reader leaves when nobody holds it open. Where the image's user may
# not write into it, what is printed is counted, and the end waits until all of it was copied.
consign_copied='' consign_docker=''
case $(readlink /proc/self/fd/3) in
  pipe:*)
    consign_docker=yes
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

consign_kind=program consign_timeout=3600 consign_from=1 consign_masked=yes
if [ -r "$NOMAD_TASK_DIR/consign/plan" ]; then
  while read -r consign_key consign_value; do
    case $consign_key in
      kind) consign_kind=$consign_value ;;
      timeout) consign_timeout=$consign_value ;;
      from_step) consign_from=$consign_value ;;
      mask) consign_masked=$consign_value ;;
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

# Puts the report in place, with the line $1 where there is one; a reader sees all of it or the one before.
consign_report=
consign_save() {
  printf '%s' "$consign_report$1" >"$consign_folder/report.new" &&
    mv -f "$consign_folder/report.new" "$consign_folder/report"
}

# How much is in the log, in bytes, in consign_size: nothing where Nomad has begun to throw its beginning away.
consign_measure_log() {
  consign_size=$(ls -ln "$NOMAD_ALLOC_DIR/logs" | {
    consign_size=0 consign_whole=
    while read -r consign_mode consign_links consign_user consign_group consign_value consign_name; do
      case $consign_name in
        *" $NOMAD_TASK_NAME.stdout.0") consign_whole=yes ;;
        *" $NOMAD_TASK_NAME.stdout."*) ;;
        *) continue ;;
      esac
      consign_size=$((consign_size + consign_value))
    done
    [ "$consign_whole" ] && echo "$consign_size"
  })
}

# Waits until the log has all the bytes that were printed, for a minute at most: not longer than 20 s without
# one more. Where the number is not known, or more have come because Docker puts three bytes for one that is no
# UTF-8, a log that did not grow for 2 s is taken for all. What is missing is reported.
consign_await_copy() {
  consign_printed='' consign_tries=300 consign_same=0 consign_before=unknown consign_missing=0
  [ -r "$consign_folder/printed" ] && read -r consign_printed <"$consign_folder/printed"
  while [ "$consign_tries" -gt 0 ]; do
    consign_measure_log
    consign_patience=10
    if [ "$consign_printed" ] && [ "$consign_size" ]; then
      [ "$consign_size" -eq "$consign_printed" ] && break
      [ "$consign_size" -lt "$consign_printed" ] && consign_patience=100
    fi
    if [ "$consign_size" = "$consign_before" ]; then
      consign_same=$((consign_same + 1))
      [ "$consign_same" -lt "$consign_patience" ] || break
    else
      consign_before=$consign_size consign_same=0
    fi
    # Should Nomad's patience end before this does.
    if [ "$consign_patience" -eq 100 ] && [ "$consign_missing" -ne $((consign_printed - consign_size)) ]; then
      consign_missing=$((consign_printed - consign_size))
      consign_save "missing $consign_missing$consign_newline"
    fi
    sleep 0.2 || sleep 1
    consign_tries=$((consign_tries - 1))
  done
  if [ "$consign_missing" -gt 0 ]; then
    if [ "$consign_size" ] && [ "$consign_size" -lt "$consign_printed" ]; then
      consign_save "missing $((consign_printed - consign_size))$consign_newline"
    else
      consign_save
    fi
  fi
}

# Masks what the formula prints. awk has no way to read what is there of a line that is not finished yet, so
# dd reads for it, whatever the pipe has. A secret that is cut by that is put together again: what may be the
# beginning of one waits for what follows. Everything else is printed at once.
consign_mask_program='
# Where value i begins at byte `first` or later, and before `border`, and ends behind it; 0 is nowhere.
function across(text, border, i, first,   at) {
  if (first < border - size[i] + 1) first = border - size[i] + 1
  at = index(substr(text, first, border + size[i] - 1 - first), value[i])
  return at ? first + at - 1 : 0
}

# From where on text has to wait: there a value may begin whose end is not here yet.
function border_of(text,   border, from, i, at, moved) {
  border = length(text) + 1
  for (i = 0; i <= values; i++) {
    from = length(text) - size[i] + 2
    if (from < 1) from = 1
    while (from < border && (at = index(substr(text, from, border - from), substr(value[i], 1, 1)))) {
      from += at - 1
      if (substr(text, from) == substr(value[i], 1, length(text) - from + 1)) border = from
      from++
    }
  }
  # No value is torn by that. Values that overlap without an end are.
  do {
    moved = 0
    for (i = 1; i <= values; i++) if (at = across(text, border, i, 1)) { border = at; moved = 1 }
  } while (moved && border + 65536 > length(text))
  return border
}

# Some write each print by itself.
function show(text) {
  shown = shown text
  if (length(shown) > 4096) flush()
}

function flush() {
  printed += length(shown)
  if (shown != "") last = substr(shown, length(shown))
  if (decode && index(shown, "\377")) {
    fflush()
    print shown | decode
    close(decode)
  } else print shown
  fflush()
  shown = ""
}

# Values that overlap are masked as one.
function show_line(line, found,   start, end, i, at, grown) {
  while (1) {
    start = 0
    for (i = 1; i <= found; i++) {
      at = index(line, value[present[i]])
      if (at && (!start || at < start)) { start = at; end = at + size[present[i]] }
    }
    if (!start) break
    do {
      grown = 0
      for (i = 1; i <= found; i++) if (at = across(line, end, present[i], start)) {
        end = at + size[present[i]]
        grown = 1
      }
    } while (grown)
    show(substr(line, 1, start - 1) "***")
    line = substr(line, end)
  }
  show(line)
}

function show_masked(text,   found, i, lines, line) {
  found = 0
  for (i = 1; i <= values; i++) if (index(text, value[i])) present[++found] = i
  if (!found) {
    show(text)
    return
  }
  lines = split(text, line, "\n")
  for (i = 1; i <= lines; i++) {
    if (i > 1) show("\n")
    show_line(line[i], found)
  }
}

BEGIN {
  ORS = ""
  # A character that texts do not have: what was read comes as one record.
  RS = "\036"
  read = "dd bs=65536 count=1"
  # To some, such as that of busybox, NUL ends a record. No text in UTF-8 has the byte \377.
  "printf \"a\\000b\"" | getline probe
  if (length(probe) != 3) {
    read = read " | tr \"\\000\" \"\\377\""
    decode = "tr \"\\377\" \"\\000\""
  }

  value[0] = ENVIRON["consign_end"]
  size[0] = length(value[0])
  count = ENVIRON["consign_count"]
  names = split(ENVIRON["consign_names"], name, /[ \t,]+/)
  for (i = 1; i <= names; i++) {
    lines = split(ENVIRON[name[i]], line, /[\n\036]/)
    for (j = 1; j <= lines; j++) {
      sub(/\r$/, "", line[j])
      if (length(line[j]) >= 8) {
        value[++values] = line[j]
        size[values] = length(line[j])
      }
    }
  }

  while (1) {
    records = 0
    command = pause read " && printf +"
    while ((command | getline record) > 0) chunk = records++ ? chunk RS record : record
    close(command)
    # What comes in small pieces is read in larger ones, at the price of a moment.
    pause = length(chunk) < 32768 ? "sleep 0.1; " : ""
    # No process could be made for it.
    if (!records || substr(chunk, length(chunk)) != "+") continue
    text = text substr(chunk, 1, length(chunk) - 1)
    if (at = index(text, value[0])) text = substr(text, 1, at - 1)
    if (at || chunk == "+") break
    at = border_of(text)
    show_masked(substr(text, 1, at - 1))
    flush()
    text = substr(text, at)
  }
  show_masked(text)
  flush()
  if (count != "") {
    # Nomad drops a last line without an end.
    if (printed && last != "\n") {
      show("\n")
      flush()
    }
    print printed + 0 "\n" >count
  }
}'

# Lets all that the formula prints go through consign_mask_program, which masks the values of the variables $1
# and counts what it passes on. Fails where there is no awk for it.
consign_filter=''
consign_start_filter() {
  consign_awk=
  # What is called awk may be a link to nowhere in a chroot.
  for consign_value in awk mawk gawk 'busybox awk'; do
    [ "$($consign_value 'BEGIN { print "works" }')" = works ] && consign_awk=$consign_value && break
  done
  consign_value=$consign_folder/output
  [ "$consign_awk" ] && command -v dd && command -v tr && mkfifo -m 600 "$consign_value" || return
  # Opened for both first, so that neither of the others waits.
  exec 4<>"$consign_value" 5<"$consign_value" 6>"$consign_value" 4>&-
  rm -f "$consign_value"
  consign_end=
  read -r consign_end </proc/sys/kernel/random/uuid
  consign_end="consign: the end $consign_end"
  # Nomad's signals are for the formula, which may print when it gets them. The environment is where awk takes
  # a text from as it is, and arguments can be seen by everybody.
  (
    trap '' INT TERM
    export consign_end consign_names="$1" consign_count="${consign_copied:+$consign_folder/printed}" LC_ALL=C
    exec $consign_awk "$consign_mask_program" <&5 >&3 3>&- 5>&- 6>&-
  ) &
  consign_filter=$!
  exec 3>&6 5>&- 6>&-
}

# Waits until all is printed, for a minute at most. What outlives the formula may hold the pipe open, so
# the end is told.
consign_end_filter() {
  consign_watch "$consign_filter" 60 ''
  (printf %s "$consign_end" >&3)
  exec 3>&-
  while kill -0 "$consign_filter"; do wait "$consign_filter"; done
  consign_unwatch "$consign_watch"
}

consign_newline='
'
# Adds to the report how much memory the container had at most, and that the kernel killed for it. Docker hears
# of that a moment later, and no more once the container has ended. The first files are of cgroups version 2.
consign_read_memory() {
  for consign_value in /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes; do
    [ -r "$consign_value" ] && read -r consign_value <"$consign_value" &&
      consign_report=$consign_report"memory $consign_value"$consign_newline
  done
  for consign_value in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$consign_value" ] || continue
    while read -r consign_key consign_value; do
      [ "$consign_key" = oom_kill ] && [ "$consign_value" != 0 ] &&
        consign_report=$consign_report"oom"$consign_newline
    done <"$consign_value"
  done
}

# Adds the last lines to the report, CPU time and how it ended ($1), and ends with exit code $2.
consign_finish() {
  # The second line is of the children: the formula, and what it waited for.
  if times >"$consign_folder/times" && { read -r consign_value && read -r consign_value; } <"$consign_folder/times"; then
    consign_report=$consign_report"cpu $consign_value"$consign_newline
  fi
  [ "$consign_docker" ] && consign_read_memory
  consign_report=$consign_report"ended $1"$consign_newline
  consign_save
  [ "$consign_filter" ] && consign_end_filter
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
if [ "$NOMAD_META_secrets$NOMAD_META_bot" ] && [ "$consign_masked" = yes ]; then
  consign_start_filter "$NOMAD_META_secrets${NOMAD_META_bot:+ BOT_TOKEN}" || consign_finish unmasked 122
elif [ "$consign_copied" ]; then
  consign_start_filter ''
fi

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
