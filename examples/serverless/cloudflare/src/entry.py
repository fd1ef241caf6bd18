"""The Worker: it asks a durably server, elsewhere, for runs, and lets that server work on a Cron Trigger.

It has no engine of its own, so it starts at once, and fits into what a Worker is allowed on any plan.
"""

import json

from workers import Response, WorkerEntrypoint, fetch


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        """POST /count {"pieces": […]} asks for a run; GET /runs/ID tells how far it is."""
        path = "/" + request.url.split("/", 3)[-1].partition("?")[0]
        if request.method == "POST" and path == "/count":
            asked = {"jobName": "count_words", "input": await request.json()}
            # A client that sends the same key again gets the same run.
            if key := request.headers.get("Idempotency-Key"):
                asked["idempotencyKey"] = key
            return await self.ask("POST", "/trigger", asked)
        if request.method == "GET" and path.startswith("/runs/") and path.removeprefix("/runs/").isalnum():
            return await self.ask("GET", f"/run?runId={path.removeprefix('/runs/')}")
        return Response.from_json({"error": f"there is no {request.method} {path}"}, status=404)

    async def scheduled(self, controller, env, ctx):
        """The Cron Trigger of wrangler.jsonc: the server executes what is due."""
        answer = await fetch(
            f"{self.env.DURABLY_URL}/process",
            method="POST",
            headers={"Authorization": f"Bearer {self.env.CRON_SECRET}"},
        )
        if answer.status != 200:
            # The trigger is then marked as failed, and the next one comes in any case.
            raise RuntimeError(f"/process answered {answer.status}: {await answer.text()}")
        print(await answer.text())  # noqa: T201

    async def ask(self, method, path, body=None):
        options = {} if body is None else {"body": json.dumps(body)}
        try:
            answer = await fetch(
                f"{self.env.DURABLY_URL}{path}",
                method=method,
                headers={"X-API-Key": self.env.API_KEY, "Content-Type": "application/json"},
                **options,
            )
        except OSError:
            # Nobody knows whether it was stored: with an Idempotency-Key, asking again is harmless.
            return Response.from_json({"error": "the server gives no answer, ask again"}, status=503)
        return Response(await answer.text(), status=answer.status, headers={"Content-Type": "application/json"})
