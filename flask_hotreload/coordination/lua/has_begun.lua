return answer(has_begun(ARGV[1]) and 1 or 0)
