# A random walk tied to its start with the given strength; mean squared distance early and late, as JSON.
BEGIN {
  srand(seed)
  for (walker = 0; walker < 400; walker++) {
    x = 0
    for (t = 1; t <= steps; t++) {
      x += (rand() < 0.5 ? -1 : 1) - tie * x
      if (t == 20) early += x * x
    }
    late += x * x
  }
  printf "{\"early\": %f, \"late\": %f, \"name\": \"walk\"}\n", early / 400, late / 400
}
