# SPDX-License-Identifier: MIT
# kvs-plugin-check on every plugin of ours: its contract is in sdk/check/<kind>.c.
foreach(name lz4 zlib none)
  kvs_plugin_check(KIND compression NAME ${name})
endforeach()
foreach(name btree hash)
  kvs_plugin_check(KIND index NAME ${name})
endforeach()
# Small segments: several are filled, and a power cut of the memory disk costs less time.
kvs_plugin_check(KIND persistence NAME wal ARGS --set segment_size=1MiB)
kvs_plugin_check(KIND persistence NAME memory)
foreach(name rest grpc)
  kvs_plugin_check(KIND transport NAME ${name})
endforeach()
kvs_plugin_check(KIND consensus NAME raft)
foreach(name metadata config dashboard)
  kvs_plugin_check(KIND service NAME ${name} WITH index-btree index-hash compression-lz4)
endforeach()
kvs_plugin_check(KIND service NAME storage
  WITH index-btree index-hash compression-lz4 persistence-wal)
