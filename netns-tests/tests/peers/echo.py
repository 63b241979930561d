"""Echoes what it reads at PORT of every address; after the end of input it writes "end"."""
import asyncio
import sys


async def serve(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"end")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, None, int(sys.argv[1]), backlog=512)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
