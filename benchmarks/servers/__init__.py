"""The same figures on database servers, and what becomes of them with more workers and with a long history."""
