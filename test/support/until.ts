/** Waits until `condition` holds, looking again and again; for what happens elsewhere and sends no word. @throws after five seconds */
export async function until(condition: () => boolean | Promise<boolean>, what = String(condition)): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    if (await condition()) return
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  throw new Error(`it never came true: ${what}`)
}
