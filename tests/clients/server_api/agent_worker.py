"""An agent worker made with `livekit-agents`, run by its own environment: it says a tone, and answers
every text stream on the transcription topic.

    agent_worker.py URL KEY SECRET AGENT_NAME

Prints `registered` and, per job, `job ID`.
"""

import asyncio
import math
import sys
from array import array

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, WorkerOptions

TRANSCRIPTION, ANSWER = "lk.transcription", "lk.chat"
RATE = 48_000


async def entrypoint(ctx: JobContext):
    print(f"job {ctx.job.id}", flush=True)
    await ctx.connect()
    agent = ctx.room.local_participant

    async def answer(reader):
        heard = await reader.read_all()
        await agent.send_text(f"heard: {heard}", topic=ANSWER)

    tasks = set()

    def on_text(reader, identity):
        task = asyncio.create_task(answer(reader))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    ctx.room.register_text_stream_handler(TRANSCRIPTION, on_text)
    source = rtc.AudioSource(RATE, 1)
    track = rtc.LocalAudioTrack.create_audio_track("voice", source)
    await agent.publish_track(track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE))
    gone = asyncio.Event()
    ctx.room.on("disconnected", lambda *_: gone.set())
    sample = 0
    while not gone.is_set():
        wave = (8000 * math.sin(2 * math.pi * 440 * (sample + n) / RATE) for n in range(480))
        frame = array("h", (int(value) for value in wave)).tobytes()
        await source.capture_frame(rtc.AudioFrame(frame, RATE, 1, 480))
        sample += 480


async def main(url, key, secret, name):
    options = WorkerOptions(
        entrypoint_fnc=entrypoint,
        agent_name=name,
        ws_url=url,
        api_key=key,
        api_secret=secret,
        # Jobs die with the worker, and a busy test machine does not make it "full".
        job_executor_type=JobExecutorType.THREAD,
        num_idle_processes=0,
        load_fnc=lambda *_: 0.0,
        host="127.0.0.1",
        port=0,
    )
    server = AgentServer.from_server_options(options)
    server.on("worker_registered", lambda *_: print("registered", flush=True))
    await server.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
