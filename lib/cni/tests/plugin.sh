#!/bin/sh
# A CNI plugin for tests, linked into a directory under the names that a test needs. It notes each call
# in the directory that its configuration gives as "record", and then does what the configuration says for the verb:
# "ADD": "fail" and so on. A name ending in -old speaks old versions only.
name=${0##*/}
conf=$(cat)

value() {
    printf '%s' "$conf" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}

if [ "$CNI_COMMAND" = VERSION ]; then
    case $name in
    *-old) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
    *) echo '{"cniVersion":"1.1.0","supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]}' ;;
    esac
    exit
fi

record=$(value record)
if [ -n "$record" ]; then
    echo "$name $CNI_COMMAND" >>"$record/calls"
    printf '%s' "$conf" >"$record/$name.$CNI_COMMAND.json"
    env | grep '^CNI_' | sort >"$record/$name.$CNI_COMMAND.env"
fi

case $(value "$CNI_COMMAND") in
fail)
    echo '{"cniVersion":"1.0.0","code":7,"msg":"no more addresses","details":"all 3 are taken"}'
    exit 1
    ;;
later)
    echo '{"cniVersion":"1.0.0","code":11,"msg":"not yet"}'
    exit 1
    ;;
die)
    echo 'something broke' >&2
    exit 3
    ;;
garbage) echo 'I am fine' ;;
flood) head -c 100000000 /dev/zero ;;
hang) sleep 60 ;;
silent) ;;
bare) echo '{"cniVersion":"1.0.0","ips":[]}' ;;
*)
    if [ "$CNI_COMMAND" = ADD ]; then
        echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"}],' \
            '"ips":[{"address":"10.9.0.2/24","interface":0},{"address":"fd09::2/64","interface":0}],"by":"'"$name"'"}'
    fi
    ;;
esac
