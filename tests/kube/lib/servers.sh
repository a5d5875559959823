# Sourced by up.sh and down.sh: how one server is started, awaited and stopped.
# A server is a name: its process id is in run/NAME.pid, its output in log/NAME.log.

# Pids are reused: one is ours only while its command line holds our folder. A zombie's is empty.
ours() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$KUBE_DIR/"; }

alive() { # alive NAME
  local pid
  pid=$(cat "$KUBE_DIR/run/$1.pid" 2>/dev/null) && ours "$pid"
}

any_alive() { # false: whatever is in the folder was left by a killed run, or by a reboot
  local file
  for file in "$KUBE_DIR"/run/*.pid; do
    ! alive "$(basename "$file" .pid)" || return 0
  done
  return 1
}

start() { # start NAME COMMAND...: does nothing when it is running already
  local name=$1
  shift
  ! alive "$name" || return 0
  [ -z "$NETNS" ] || set -- nsenter --net="/run/netns/$NETNS" "$@"
  # Descriptor 8 is up.sh's lock: a server that inherited it would hold it for life.
  setsid "$@" >>"$KUBE_DIR/log/$name.log" 2>&1 </dev/null 8>&- &
  echo $! >"$KUBE_DIR/run/$name.pid"
}

await() { # await NAME SECONDS COMMAND...: until COMMAND succeeds; fails at once when the server NAME is dead
  local name=$1 seconds=$2 deadline=$((SECONDS + $2)) problem
  shift 2
  until problem=$("$@" 2>&1); do
    if ! alive "$name"; then
      tail -n 15 "$KUBE_DIR/log/$name.log" >&2
      die "$name ended; the above is the end of $KUBE_DIR/log/$name.log"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 15 "$KUBE_DIR/log/$name.log" >&2
      die "$name was not ready after $seconds s ($problem); the above is the end of $KUBE_DIR/log/$name.log"
    fi
    sleep 0.2
  done
}

stop() { # stop NAME: asks it to end and waits 15 s, then kills it
  local pid
  alive "$1" || { rm -f "$KUBE_DIR/run/$1.pid"; return 0; }
  pid=$(cat "$KUBE_DIR/run/$1.pid")
  kill -CONT "$pid" 2>/dev/null || true # a fault test may have frozen it
  kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 150); do
    ours "$pid" || break
    sleep 0.1
  done
  ! ours "$pid" || kill -KILL "$pid" 2>/dev/null || true
  rm -f "$KUBE_DIR/run/$1.pid"
}
