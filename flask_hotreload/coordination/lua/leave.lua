-- It admits no request from now on, which is what being dead means.
bury(ARGV[1])
return answer()
