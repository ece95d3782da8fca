update(unpack(ARGV))
return answer()
