/**
 * The text of an answer that may be somebody else's: no more of it is read than this.
 * @param mostBytes after so many the connection is given up
 * @throws {Error} when it is longer
 */
export async function readText(body: AsyncIterable<Buffer>, mostBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body) {
    bytes += chunk.length
    if (bytes > mostBytes) throw new Error(`is larger than ${mostBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
