/**
 * Draws one of several by weight; what has the weight 0 is never drawn.
 * @param random from 0 to less than 1
 */
export function compileSplit<T>(
  choices: readonly { readonly value: T; readonly weight: number }[],
  random: () => number
): () => T {
  const at = compileShares(choices)
  return () => at(random())
}

/**
 * The one of several to which a place in the unit interval belongs: each has a stretch as long as its share, in their order.
 */
export function compileShares<T>(
  choices: readonly { readonly value: T; readonly weight: number }[]
): (place: number) => T {
  const drawn = choices.filter(({ weight }) => weight > 0)
  const values = drawn.map(({ value }) => value)
  const total = drawn.reduce((sum, { weight }) => sum + weight, 0)
  let sum = 0
  const ends = drawn.map(({ weight }) => {
    sum += weight
    return sum / total
  })
  return place => {
    let i = 0
    while (i < ends.length - 1 && place >= (ends[i] as number)) i++
    return values[i] as T
  }
}
