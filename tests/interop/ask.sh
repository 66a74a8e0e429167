# Questions to the gate at port `gate`, and what is expected of its answers; the last one's head and body lie in `work`.
# shellcheck shell=bash disable=SC2154

# What further curl is given for each question.
extra=()

# ask METHOD PATH [TOKEN]: leaves `status`, and head and body in files.
ask() {
  local bearer=()
  [[ -z ${3:-} ]] || bearer=(-H "Authorization: Bearer $3")
  status=$(curl -s -m 20 -o "$work/body" -D "$work/head" -w '%{http_code}' -X "$1" "${bearer[@]}" "${extra[@]}" "http://127.0.0.1:$gate$2") || true
}

# expect NAME STATUS METHOD PATH [TOKEN]
expect() {
  ask "$3" "$4" "${5:-}"
  if [[ $status == "$2" ]]; then ok "$1"; else fail "$1" "$status $(head -c 300 "$work/body")"; fi
}

# refused NAME STATUS CODE METHOD PATH [TOKEN]
refused() {
  ask "$4" "$5" "${6:-}"
  if is_refusal "$2" "$3"; then
    ok "$1"
  else
    fail "$1" "wanted $2 $3, got $status $(head -c 300 "$work/body")"
  fi
}

is_refusal() {
  [[ $status == "$1" ]] && grep -Eq "\"code\": ?\"$2\"" "$work/body"
}

# settles NAME SECONDS STATUS METHOD PATH [TOKEN]: the answer becomes that one in time.
settles() {
  local end=$((SECONDS + $2)) code=
  [[ $3 != 401 ]] || code=900901
  while :; do
    ask "$4" "$5" "${6:-}"
    if [[ $status == "$3" ]] && { [[ -z $code ]] || is_refusal 401 "$code"; }; then
      ok "$1"
      return
    fi
    ((SECONDS < end)) || break
    sleep 0.2
  done
  fail "$1" "after $2 s still $status $(head -c 300 "$work/body")"
}

# says NAME FILE PATTERN / silent NAME FILE PATTERN: whether the last answer's head or body has it, without regard to case.
says() {
  if grep -Eiq "$3" "$work/$2"; then ok "$1"; else fail "$1" "$(head -c 600 "$work/$2")"; fi
}
silent() {
  if grep -Eiq "$3" "$work/$2"; then fail "$1" "$(head -c 600 "$work/$2")"; else ok "$1"; fi
}
