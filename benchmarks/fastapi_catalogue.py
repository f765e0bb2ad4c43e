"""The catalogue's reads in FastAPI and SQLAlchemy, as one writes them: mapped classes, relations loaded by `selectin`.

The responses have the same fields as ours. They are built as dicts without a response model, which is the quicker way.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, HTTPException
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload, selectinload

from benchmarks.fastapi_tables import File, FileHash, Model, SortKey, Version

DATABASE = "BENCH_DATABASE"
"""Names the URL of the database."""
BASE = "http://127.0.0.1:8000"

WHOLE = (
    joinedload(Model.account),
    joinedload(Model.stats),
    selectinload(Model.tags),
    selectinload(Model.versions).selectinload(Version.files).selectinload(File.hashes),
    selectinload(Model.versions).selectinload(Version.images),
)


def app() -> FastAPI:
    """What uvicorn serves."""
    url = os.environ[DATABASE].replace("postgresql://", "postgresql+psycopg://")
    session = async_sessionmaker(create_async_engine(url, pool_size=8, max_overflow=0), expire_on_commit=False)
    api = FastAPI()

    @api.get("/api/v1/models")
    async def list_models(limit: int = 100) -> dict[str, Any]:
        asked = (
            select(Model)
            .join(SortKey, SortKey.item_id == Model.id)
            .where(SortKey.list == "rated", SortKey.replaced.is_(None), Model.listed, Model.nsfw_level.op("&")(1) != 0)
            .order_by(SortKey.k1.desc(), SortKey.k2.desc(), SortKey.item_id.desc())
            .limit(limit)
            .options(*WHOLE)
        )
        async with session() as opened:
            found = (await opened.scalars(asked)).unique().all()
        return {"items": [model_of(model) for model in found], "metadata": {}}

    @api.get("/api/v1/models/{model_id}")
    async def show_model(model_id: int) -> dict[str, Any]:
        async with session() as opened:
            model = await opened.scalar(select(Model).where(Model.id == model_id, Model.visible).options(*WHOLE))
        if model is None:
            raise HTTPException(404)
        return model_of(model)

    @api.get("/api/v1/model-versions/by-hash/{digest}")
    async def by_hash(digest: str) -> dict[str, Any]:
        owner = select(File.version_id).join(FileHash).where(FileHash.hash == digest.upper()).limit(1)
        asked = select(Model).join(Version).where(Version.id.in_(owner), Model.visible).options(*WHOLE)
        async with session() as opened:
            model = (await opened.scalars(asked)).unique().first()
        if model is None:
            raise HTTPException(404)
        version = version_of(0, model.versions[0])
        about = {"name": model.name, "type": model.type, "nsfw": model.nsfw, "poi": model.poi}
        return {**version, "modelId": model.id, "model": about, "air": f"urn:air:{model.id}@{model.versions[0].id}"}

    return api


def model_of(model: Model) -> dict[str, Any]:
    """A model as clients read it."""
    counts = model.stats
    return {
        "id": model.id,
        "name": model.name,
        "description": model.description,
        "type": model.type,
        "nsfw": model.nsfw,
        "nsfwLevel": model.nsfw_level,
        "poi": model.poi,
        "minor": model.minor,
        "sfwOnly": model.sfw_only,
        "allowNoCredit": model.allow_no_credit,
        "allowCommercialUse": model.allow_commercial_use,
        "allowDerivatives": model.allow_derivatives,
        "allowDifferentLicense": model.allow_different_license,
        "availability": model.availability,
        "status": model.status,
        "checkpointType": model.checkpoint_type,
        "userId": model.account.number,
        "createdAt": model.created_at,
        "updatedAt": model.updated_at,
        "publishedAt": model.published_at,
        "lastVersionAt": model.last_version_at,
        "stats": {
            "downloadCount": counts.download_count if counts else 0,
            "thumbsUpCount": counts.thumbs_up_count if counts else 0,
            "thumbsDownCount": counts.thumbs_down_count if counts else 0,
            "commentCount": counts.comment_count if counts else 0,
            "collectedCount": counts.collected_count if counts else 0,
            "tippedAmountCount": counts.tipped_amount_count if counts else 0,
        },
        "creator": {"username": model.account.name, "image": model.account.image},
        "tags": [tag.name for tag in model.tags],
        "modelVersions": [version_of(index, version) for index, version in enumerate(model.versions)],
    }


def version_of(index: int, version: Version) -> dict[str, Any]:
    """A version inside its model."""
    return {
        "id": version.id,
        "index": index,
        "name": version.name,
        "description": version.description,
        "baseModel": version.base_model,
        "baseModelType": version.base_model_type,
        "createdAt": version.created_at,
        "updatedAt": version.updated_at,
        "publishedAt": version.published_at,
        "status": version.status,
        "availability": version.availability,
        "nsfwLevel": version.nsfw_level,
        "trainedWords": version.trained_words,
        "covered": bool(version.images),
        "files": files_of(version.id, version.files),
        "images": [
            {
                "id": image.id,
                "url": f"{BASE}/api/v1/images/{image.sha256}/original=true/{image.id}.png",
                "nsfwLevel": image.nsfw_level,
                "width": image.width,
                "height": image.height,
                "hash": image.blurhash,
                "type": "image",
            }
            for image in version.images[:20]
        ],
        "downloadUrl": f"{BASE}/api/download/models/{version.id}",
    }


def files_of(version_id: int, files: Sequence[File]) -> list[dict[str, Any]]:
    """The files of a version."""
    return [
        {
            "id": file.id,
            "sizeKB": file.size / 1024,
            "name": file.path,
            "overrideName": file.override_name,
            "type": file.type,
            "pickleScanResult": "Success",
            "scannedAt": file.created_at,
            "metadata": {"format": file.format},
            "hashes": {known.kind: known.hash for known in file.hashes},
            "primary": True,
            "downloadUrl": f"{BASE}/api/download/models/{version_id}",
        }
        for file in files
        if file.role == "weights" and file.gone_at is None
    ]
