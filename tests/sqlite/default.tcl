# Prints the VFS that a database gets where none is named, and Tideline's version.
sqlite3 db test.db
puts "DEFAULT [file_control_vfsname db main] [db one {SELECT tide_version()}]"
db close
exit
