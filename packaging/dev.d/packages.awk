# SPDX-License-Identifier: MIT
#
# From `apt-cache dumpavail` to one batch operation a line. The value is JSON text inside JSON: quoted
# twice. Bytes that are not UTF-8 do not occur in the index; control characters are dropped.

# The pieces between backslashes, and then between quotes, joined again with one more backslash: what
# gsub makes of backslashes in a replacement differs between awks.
function escape(text, char,   pieces, n, i, out) {
    n = split(text, pieces, char)
    out = pieces[1]
    for (i = 2; i <= n; i++) {
        out = out "\\" char pieces[i]
    }
    return out
}

function quote(text) {
    gsub(/[\001-\037]/, " ", text)
    return "\"" escape(escape(text, "\\"), "\"") "\""
}

function emit(   value) {
    if (name == "") {
        return
    }
    value = "{\"package\":" quote(name) ",\"version\":" quote(version) ",\"section\":" quote(section) \
        ",\"maintainer\":" quote(maintainer) ",\"installed_size\":" (size == "" ? 0 : size + 0) \
        ",\"description\":" quote(description) ",\"depends\":" quote(depends) "}"
    print "{\"op\":\"put\",\"key\":" quote(name) ",\"content_type\":\"application/json\",\"value\":" \
        quote(value) "}"
    name = version = section = maintainer = size = description = depends = ""
}

/^$/ { emit(); next }
/^Package: / { name = substr($0, 10) }
/^Version: / { version = substr($0, 10) }
/^Section: / { section = substr($0, 10) }
/^Maintainer: / { maintainer = substr($0, 13) }
/^Installed-Size: / { size = substr($0, 17) }
/^Description: / { description = substr($0, 14) }
/^Description-en: / { description = substr($0, 17) }
/^Depends: / { depends = substr($0, 10) }
END { emit() }
